# Tunesmith in a container; docs/deploy.md tells how to run it.
FROM python:3.12-slim
RUN useradd --system --create-home --home-dir /home/tunesmith tunesmith \
    && mkdir /data && chown tunesmith:tunesmith /data
WORKDIR /opt/tunesmith
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir -c constraints.txt torch && pip install --no-cache-dir -c constraints.txt ".[postgres]"
USER tunesmith
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
CMD ["tunesmith", "serve", "--data-dir", "/data"]
