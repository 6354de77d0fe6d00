# One image for worker, beat, flower, migrate and the commands. What it runs is its command:
#
#   docker build -t instainstru-tasks:local .
#   docker run --rm --init instainstru-tasks:local celery -A app.tasks inspect ping
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# What the dependencies are made from comes first: a change of the code leaves this layer alone.
COPY pyproject.toml requirements-celery.txt requirements-dev.lock README.md LICENSE ./
RUN pip install --constraint requirements-dev.lock '.[postgres]' \
 && pip uninstall --yes instainstru-tasks pip \
 && find /opt/venv -name tests -type d -prune -exec rm -rf {} +
COPY app /srv/instainstru/app
# The root file system is read-only where it runs: what Python would compile there, it has.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib /srv/instainstru/app

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="instainstru-tasks" \
      org.opencontainers.image.description="Celery workers, beat and Flower of a lesson marketplace" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /srv/instainstru instainstru \
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
