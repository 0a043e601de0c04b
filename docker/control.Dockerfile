# Controller, gateways, Ray's head, front and tests. No GPU stack.
#
#   docker build -f docker/control.Dockerfile -t reasonserve/control:0.1.0 \
#     --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:DIGEST .
ARG PYTHON_IMAGE

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY kernels ./kernels
COPY service ./service
RUN python -m pip wheel --no-cache-dir --no-deps --constraint requirements.lock --wheel-dir /wheels .

FROM ${PYTHON_IMAGE}
COPY requirements.lock /tmp/requirements.lock
COPY --from=wheel /wheels /wheels
# Into the image's own Python: Ray's operator starts nodes by a shell that may not know of another.
RUN set -eu; \
    wheel="$(ls /wheels/*.whl)"; \
    python -m pip install --no-cache-dir --constraint /tmp/requirements.lock "${wheel}[serve,postgres]"; \
    groupadd --gid 10001 reasonserve; \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin reasonserve; \
    rm -r /wheels /tmp/requirements.lock
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
CMD ["reasonserve", "--help"]
