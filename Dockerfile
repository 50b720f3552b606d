# The image of outboxd: built with everything (TLS and SASL to Kafka), run as a user without rights. Linted only; none is published yet.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --locked --release --features full

FROM debian:bookworm-slim
# The certificates of the system, for TLS without a ca_file.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/outboxd /usr/local/bin/outboxd
USER 10001:10001
EXPOSE 9640
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["outboxd", "healthcheck"]
ENTRYPOINT ["outboxd"]
CMD ["run"]
