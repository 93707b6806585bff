# Purpose:  an image with this project and its environment, for CPU and GPU.
# Command:  docker build -t ofa .
#           docker run --rm -it --gpus all -v "$PWD:/work" ofa evaluate checkpoint_best.pt caption_val.tsv --out results
# Settings: --build-arg OFA_TORCH=2.10.0 for GPUs older than sm_75 or drivers of CUDA 12 (no GPU is asked during a build)
FROM python:3.12-slim-bookworm
# METEOR of pycocoevalcap is a Java program.
RUN apt-get update \
    && apt-get install -y --no-install-recommends default-jre-headless \
    && rm -rf /var/lib/apt/lists/*
COPY . /opt/ofa
ARG OFA_TORCH=2.11.0
RUN OFA_TORCH=$OFA_TORCH PIP_NO_CACHE_DIR=1 bash /opt/ofa/run_scripts/setup.sh
ENV PATH=/opt/ofa/.venv/bin:$PATH
WORKDIR /work
ENTRYPOINT ["ofa"]
CMD ["--help"]
