# docker build -t larq-nas .
# docker run --rm -v "$PWD:/work" larq-nas search --data digits --directory runs/digits
FROM python:3.11-slim

WORKDIR /src
COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE CHANGELOG.md ./
COPY larq_nas ./larq_nas
RUN pip install --no-cache-dir '.[tensorflow-cpu]'

# What the command writes and reads: mount a directory here.
WORKDIR /work
ENTRYPOINT ["larq-nas"]
CMD ["--help"]
