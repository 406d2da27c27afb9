# The API and the relay: no torch, no model bytes, no signing key. Build from the repository root:
#   docker build -f docker/api.Dockerfile -t registry-guard-api [--build-arg VERSION=1.2.3] .
FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home guard \
 && install -d -o guard -m 0700 /var/lib/guard && install -d -o guard /etc/guard-trust
WORKDIR /app
# The version that `guard --version` shows; Git's tags do not travel into an image.
ARG VERSION=
COPY constraints.txt pyproject.toml setup.py README.md ./
COPY guard guard
COPY workers workers
COPY migrations migrations
RUN SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION} pip install --no-cache-dir -c constraints.txt '.[api,postgres]'
USER guard
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import httpx; httpx.get('http://127.0.0.1:8000/healthz').raise_for_status()"]
CMD ["python", "-m", "uvicorn", "guard.api.app:from_settings", "--factory", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]
