"""Ray Serve with the real gateway and replica and the fake engine, in a process of its own.

Prints READY once it serves; ends when its standard input closes. A process of its own keeps Ray's
variables, threads and warnings out of the tests'.
"""

import json
import sys

import ray
from ray import serve

from reasonserve.app import build_app, serve_options
from reasonserve.config import ServiceConfig
from reasonserve.gateway.deployment import Gateway


class ExplodingReplica:
    """A replica with a fault outside everything that catches faults."""

    async def generate(self, call):
        raise RuntimeError("a message that must not reach any client")
        yield


def main() -> None:
    """Starts both applications."""
    arguments = json.loads(sys.argv[1])
    config = ServiceConfig.model_validate(arguments["config"])
    controller = {name: arguments[name] for name in ("controller_endpoint", "admin_token_file")}
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    try:
        serve.start(**serve_options(config))
        app = build_app(
            config,
            **controller,
            model_path=arguments["model_path"],
            engine_factory="reasonserve.replica.fake_engine:create",
        )
        serve.run(app, name="reasonserve", route_prefix="/")
        exploding = serve.deployment(ray_actor_options={"num_cpus": 0.1})(ExplodingReplica).bind()
        gateway = serve.deployment(ray_actor_options={"num_cpus": 0.1})(Gateway).bind(config, exploding, **controller)
        serve.run(gateway, name="exploding", route_prefix="/exploding")
        print("READY", flush=True)  # noqa: T201  the parent waits for it
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
