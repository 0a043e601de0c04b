"""What gateway and routing add to a call, with an engine that costs nothing, beside a bare gRPC server."""
