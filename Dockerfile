# syntax=docker/dockerfile:1
# The images, one for each target:
#   docker build --target users -t shop/users .
#   docker build --target orders -t shop/orders .
#   docker build --target splitctl -t shop/splitctl .
#   docker build --target migrations -t shop/migrations .
# docs/operations.md says how they are used, and what of them was never built where the tests run.
ARG RUST=1.95

FROM rust:${RUST}-bookworm AS build
WORKDIR /src
COPY . .
# Such as users/kafka,orders/kafka,broker/kafka.
ARG FEATURES=""
# What `build_info` says of the sources, such as a commit.
ARG REVISION=""
ENV BUILD_REVISION=${REVISION}
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin users --bin orders --bin splitctl --features "${FEATURES}" \
    && install -D --strip --target-directory=/out target/release/users target/release/orders target/release/splitctl

FROM rust:${RUST}-bookworm AS build-sqlx
# The version that the services are built with.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install sqlx-cli --locked --version 0.9.0 --no-default-features --features rustls,postgres --root /out

# glibc, libgcc and the authorities of certificates; no shell and no package manager. Its user is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot AS service
# Everybody who reaches a port could do everything. So the images ask for tokens, and end without AUTH_AUDIENCE and a place of
# the issuer's keys. Where a gateway authenticates all callers, set AUTH=off and ALLOW_UNAUTHENTICATED=yes.
ENV AUTH=jwt \
    LOG_FORMAT=json
WORKDIR /
USER 65532:65532
STOPSIGNAL SIGTERM

FROM service AS users
ENV USERS_ADDR=0.0.0.0:8081 \
    USERS_GRPC_ADDR=0.0.0.0:50051
COPY --from=build /out/users /usr/local/bin/users
EXPOSE 8081 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/usr/local/bin/users", "health"]
ENTRYPOINT ["/usr/local/bin/users"]

FROM service AS orders
ENV ORDERS_ADDR=0.0.0.0:8082
COPY --from=build /out/orders /usr/local/bin/orders
EXPOSE 8082
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/usr/local/bin/orders", "health"]
ENTRYPOINT ["/usr/local/bin/orders"]

# Runs the migrations of the shared schema as the owner in DATABASE_URL, and ends.
FROM gcr.io/distroless/cc-debian12:nonroot AS migrations
WORKDIR /
USER 65532:65532
COPY --from=build-sqlx /out/bin/sqlx /usr/local/bin/sqlx
COPY migrations /migrations
ENTRYPOINT ["/usr/local/bin/sqlx"]
CMD ["migrate", "run", "--source", "/migrations"]

# splitctl runs psql, pg_dump and pg_restore, which must be at least as new as the servers: the newest version that it knows.
FROM debian:bookworm-slim AS splitctl
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates postgresql-common \
    && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y \
    && apt-get install --yes --no-install-recommends postgresql-client-18 \
    && rm -rf /var/lib/apt/lists/* \
    && psql --version | grep ' 18\.' && pg_dump --version | grep ' 18\.' && pg_restore --version | grep ' 18\.'
COPY --from=build /out/splitctl /usr/local/bin/splitctl
# Mount the folder with split.toml here.
WORKDIR /work
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/splitctl"]
