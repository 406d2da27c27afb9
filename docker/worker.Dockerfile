# The workers. Build from the repository root; without the argument, torch comes with CUDA:
#   docker build -f docker/worker.Dockerfile -t registry-guard-worker [--build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu] .
FROM python:3.11-slim
ARG TORCH_INDEX=https://pypi.org/simple
# A named volume takes over the owner of the folder it is mounted on.
RUN useradd --system --uid 10001 --create-home guard \
 && install -d -o guard -m 0700 /var/lib/guard /run/guard-keys /run/guard-ts && install -d -o guard /etc/guard-trust
WORKDIR /app
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt --index-url ${TORCH_INDEX} --extra-index-url https://pypi.org/simple torch torchvision
ARG VERSION=
COPY pyproject.toml setup.py README.md ./
COPY guard guard
COPY workers workers
COPY migrations migrations
RUN SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION} pip install --no-cache-dir -c constraints.txt '.[worker,postgres]'
USER guard
# A worker for scans runs one process per GPU (`-Q scan -c 1`), as does one for trainings (`-Q train -c 1`); the other workers take
# `-Q inspect,publish,control`.
CMD ["python", "-m", "celery", "-A", "workers.app", "worker", "-P", "prefork", "-O", "fair", "-c", "1", "-Q", "scan", "--without-gossip", "--without-mingle"]
