"""Prepares a node for replicas: ``python -m reasonserve.node.prepare``.

Brings the model onto the node and sees that the profile shipped for it is active at the controller, so that
a replica's start waits for neither and whoever looks at the pod reads which of the two failed.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from tenacity import before_sleep_log, retry, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from reasonserve.config import ServiceConfig
from reasonserve.errors import ReasonServeError, UnavailableError
from reasonserve.models.resolve import resolve_model
from reasonserve.stack.profiles import ensure_active

CONTROLLER_WAIT_S = 600.0
"""A controller that is installed together with this pod pulls its image first."""

_LOG = logging.getLogger(__name__)

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML file of the cluster's configuration.")]
ControllerEndpoint = Annotated[str, typer.Option("--controller", help="host:port of the controller.")]
AdminTokenFile = Annotated[Path, typer.Option(help="File that holds the admin token.")]


@retry(
    retry=retry_if_exception_type(UnavailableError),
    wait=wait_exponential_jitter(multiplier=0.5, max=10.0),
    stop=stop_after_delay(CONTROLLER_WAIT_S),
    before_sleep=before_sleep_log(_LOG, logging.INFO),
    reraise=True,
)
def activate_profile(controller: str, admin_token_file: Path, folder: Path) -> str:
    """Returns the id of the model's active profile, or "", once the controller answers.

    Raises:
        ReasonServeError: The controller refused, or did not answer in time.
    """
    return ensure_active(controller, admin_token_file, folder)


def prepare(config: ConfigFile, controller: ControllerEndpoint, admin_token_file: AdminTokenFile) -> None:
    """Brings the model onto this node and activates the profile shipped for it."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        service = ServiceConfig.from_file(config)
        folder = resolve_model(service.model, lambda step: _LOG.info("%s", step))
        profile_id = activate_profile(controller, admin_token_file, folder)
    except ReasonServeError as error:
        _LOG.error("%s", error.message)
        raise typer.Exit(code=1) from None
    _LOG.info("The model is here; %s.", f"profile {profile_id} is active" if profile_id else "it has no profile")


if __name__ == "__main__":
    typer.run(prepare)
