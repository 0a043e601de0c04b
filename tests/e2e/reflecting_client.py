"""Does what `grpcurl -plaintext` does with the arguments that the docs use: asks the server itself for its messages.

Stands in for grpcurl where that is not installed; it knows no generated code of the service.
"""

import argparse
import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> None:
    """Runs one command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d", default="{}")
    parser.add_argument("words", nargs="+")
    given = parser.parse_args()
    with grpc.insecure_channel(given.words[0]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        if given.words[1] == "list":
            service = pool.FindServiceByName(given.words[2])
            lines = [f"{service.full_name}.{method.name}" for method in service.methods]
        else:
            lines = call(channel, pool, given)
        sys.stdout.write("\n".join(lines) + "\n")


def call(channel: grpc.Channel, pool: DescriptorPool, given: argparse.Namespace) -> list[str]:
    """Calls a method; returns its answers as JSON."""
    service, _, name = given.words[1].partition("/")
    method = pool.FindServiceByName(service).FindMethodByName(name)
    request = ParseDict(json.loads(given.d), GetMessageClass(method.input_type)())
    metadata = [(key.strip().lower(), value.strip()) for key, _, value in (h.partition(":") for h in given.H)]
    answers = channel.unary_stream if method.server_streaming else channel.unary_unary
    invoke = answers(
        f"/{given.words[1]}", type(request).SerializeToString, GetMessageClass(method.output_type).FromString
    )
    got = invoke(request, metadata=metadata)
    return [MessageToJson(answer) for answer in (got if method.server_streaming else [got])]


if __name__ == "__main__":
    main()
