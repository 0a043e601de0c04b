# Replicas: SGLang's official image of the release that the plugin's seams are checked against, and this package.
#
#   docker build -f docker/engine.Dockerfile -t reasonserve/engine:0.1.0 \
#     --build-arg SGLANG_IMAGE=lmsysorg/sglang:v0.5.23@sha256:DIGEST .
ARG SGLANG_IMAGE

FROM ${SGLANG_IMAGE} AS wheel
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY kernels ./kernels
COPY service ./service
RUN python3 -m pip wheel --no-cache-dir --no-deps --constraint requirements.lock --wheel-dir /wheels .

FROM ${SGLANG_IMAGE}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY requirements.lock /tmp/requirements.lock
COPY --from=wheel /wheels /wheels
# The base holds SGLang and torch already; another release of either fails the build instead of replacing it.
RUN python3 -c 'from importlib.metadata import version; assert version("sglang") == "0.5.23", version("sglang")'; \
    python3 -c 'import sys; assert (3, 11) <= sys.version_info[:2] < (3, 13), sys.version'; \
    before="$(python3 -m pip list --format=freeze | grep -E '^(sglang|torch|triton)==')"; \
    wheel="$(ls /wheels/*.whl)"; \
    python3 -m pip install --no-cache-dir --constraint /tmp/requirements.lock "${wheel}[serve,engine]"; \
    test "${before}" = "$(python3 -m pip list --format=freeze | grep -E '^(sglang|torch|triton)==')"; \
    ln -sf "$(command -v python3)" /usr/local/bin/python; \
    getent group 10001 || groupadd --gid 10001 reasonserve; \
    getent passwd 10001 || useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp reasonserve; \
    rm -r /wheels /tmp/requirements.lock
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
CMD ["reasonserve", "--help"]
