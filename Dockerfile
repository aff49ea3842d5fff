# Lamplight on Debian 12: built with the same set-up as on a machine, run as a user without rights.

FROM debian:12-slim AS build
WORKDIR /src
# The set-up alone first: it changes rarely and takes longest.
COPY scripts/setup.sh scripts/
COPY Cargo.toml rust-toolchain.toml ./
RUN scripts/setup.sh
ENV PATH="/src/.tools/node_modules/.bin:${PATH}"
COPY . .
RUN . "$HOME/.cargo/env" \
  && cargo xtask web \
  && cargo build --release --locked --bin lamplight

FROM debian:12-slim
RUN apt-get update -qq \
  && apt-get install -y -qq --no-install-recommends \
    ca-certificates libavcodec59 libavformat59 libavutil57 libswresample4 libswscale6 \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin lamplight \
  && install -d -o lamplight -g lamplight -m 0700 /data
COPY --from=build /src/target/release/lamplight /usr/local/bin/lamplight
COPY --from=build /src/config /etc/lamplight
USER lamplight
WORKDIR /data
VOLUME /data
ENV LAMPLIGHT_DATA_DIR=/data
# Pages, API, HLS and signalling; RTMP; all WebRTC media.
EXPOSE 8080/tcp 8443/tcp 1935/tcp 3478/udp
ENTRYPOINT ["lamplight"]
CMD ["serve"]
