"""A Ray cluster of one node that loads a Ray Serve configuration as Ray's operator does: by its dashboard's REST API.

Reads the configuration's text from the file named first, prints what Ray Serve says of the application as JSON once it
runs or has failed, and ends when its standard input closes.
"""

import json
import os
import sys
import time
from pathlib import Path

import ray
import requests
import yaml
from ray import serve

RESOURCES = {"reasonserve_gateway": 1, "reasonserve_replica": 1}
"""Of the two worker groups; here one node has both."""
DEADLINE_S = 240.0
ENDED = ("RUNNING", "DEPLOY_FAILED", "UNHEALTHY")


def applied(url: str, config: dict) -> dict:
    """Sends a configuration and returns the application's details once they are final."""
    client = requests.Session()
    client.trust_env = False
    client.headers["Authorization"] = f"Bearer {os.environ['RAY_AUTH_TOKEN']}"
    answer = client.put(f"{url}/api/serve/applications/", json=config, timeout=60)
    if not answer.ok:
        return {"status": "REFUSED", "message": answer.text}
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        details = client.get(f"{url}/api/serve/applications/", timeout=30).json()["applications"]
        (application,) = details.values() or ({"status": ""},)
        if application["status"] in ENDED:
            return application
        time.sleep(0.5)
    return {"status": "LATE", "message": str(application)}


def main() -> None:
    """Starts Ray, applies the configuration, waits."""
    config = yaml.safe_load(Path(sys.argv[1]).read_text())
    context = ray.init(
        address="local",
        num_cpus=2,
        resources=RESOURCES,
        include_dashboard=True,
        dashboard_port=int(sys.argv[2]),
        object_store_memory=200 << 20,
        log_to_driver=False,
    )
    try:
        print(json.dumps(applied(f"http://{context.dashboard_url}", config)), flush=True)  # noqa: T201  the parent reads it
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
