# The API and the relay: no torch, no model bytes, no signing key. Build from the repository root:
#   docker build -f docker/api.Dockerfile -t registry-guard-api .
FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home guard \
 && install -d -o guard -m 0700 /var/lib/guard && install -d -o guard /etc/guard-trust
WORKDIR /app
COPY constraints.txt pyproject.toml README.md ./
COPY guard guard
COPY workers workers
COPY migrations migrations
# Named one by one, because the package as a whole also depends on torch.
RUN pip install --no-cache-dir -c constraints.txt \
      alembic boto3 "celery[redis]" cryptography fastapi httpx jinja2 numpy pillow prometheus-client psutil "psycopg[binary]" pyarrow redis \
      rich safetensors scipy securesystemslib sqlalchemy structlog tenacity typer uvicorn \
 && pip install --no-cache-dir --no-deps .
USER guard
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import httpx; httpx.get('http://127.0.0.1:8000/healthz').raise_for_status()"]
CMD ["python", "-m", "uvicorn", "guard.api.app:from_settings", "--factory", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]
