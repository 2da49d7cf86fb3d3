# bre on the CPU, built from this folder: docker build -t bre .
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY CMakeLists.txt LICENSE README.md constraints.txt pyproject.toml ./
COPY csrc csrc
COPY python python
RUN pip wheel --no-cache-dir --no-deps -c constraints.txt -w /wheels .

FROM python:3.12-slim
# OpenMP, which the kernels use
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
COPY constraints.txt /
# torch's own index has a build without CUDA, a tenth of the size
RUN pip install --no-cache-dir -c /constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
    "$(ls /wheels/*.whl)[arrow,s3,gcs,http,hf,ray]"
USER 1000
WORKDIR /work
ENTRYPOINT ["bre"]
