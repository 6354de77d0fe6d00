# One image for worker, beat, flower, migrate and the commands. What it runs is its command:
#
#   docker build -t instainstru-tasks:local .
#   docker run --rm --init instainstru-tasks:local celery -A app.tasks worker --loglevel=info
#
# PYTHON_IMAGE may name a digest: python:3.12-slim@sha256:...
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The dependencies come first: a change of the code leaves this layer alone.
COPY requirements-image.lock ./
# Only files whose hash stands in the lock, and wheels alone: building one would fetch tools that
# have none. Compiled here, because the root file system is read-only where it runs. setuptools
# and pip are of no use there, and what is not there has no vulnerabilities.
RUN pip install --no-compile --require-hashes --only-binary :all: --requirement requirements-image.lock \
 && pip uninstall --quiet --yes setuptools pip \
 && find /opt/venv -name tests -type d -prune -exec rm -rf {} + \
 && python -m compileall -q -j 0 /opt/venv/lib
COPY app /srv/instainstru/app
RUN python -m compileall -q /srv/instainstru/app

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 instainstru \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /srv/instainstru instainstru \
 && install -d -o instainstru -g instainstru /srv/instainstru/logs /srv/instainstru/var
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/instainstru/app /srv/instainstru/app
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/srv/instainstru PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/instainstru
USER instainstru
# The only places that it writes to, beside /tmp.
VOLUME ["/srv/instainstru/logs", "/srv/instainstru/var"]
EXPOSE 9540 9541 5555
CMD ["celery", "-A", "app.tasks", "worker", "--loglevel=info"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="instainstru-tasks" \
      org.opencontainers.image.description="Celery workers, beat and Flower of a lesson marketplace" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
