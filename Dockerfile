# keyrelay as an image: one static program, the certificates of the public authorities, and a config. docs/containers.md
# says how to use it.
#
#     docker build -t keyrelay .

# Where it is built: Rust, a C compiler, glibc's static libraries and ca-certificates, all on Debian. For a build that can be
# repeated name it by its digest.
ARG BUILD_IMAGE=docker.io/library/rust:1-slim-bookworm

# What the program stands on: nothing. glibc, though linked statically, looks names up in /etc/hosts and DNS by itself.
ARG RUN_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .

# glibc, not musl: its allocator gives memory back as the image's GLIBC_TUNABLES says (docs/limits.md). With a target of its
# own, the flags do not reach build scripts and macros, which cannot be static.
# What was downloaded and compiled stays in caches of the builder, so that a change of src compiles keyrelay alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(rustc --version --verbose | sed -n 's/^host: //p')" && \
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target "$target" && \
    install -D -m 0755 "target/$target/release/keyrelay" /image/keyrelay

# The folder of further mappings must be there, for `include` in the config names it.
RUN install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt && \
    install -D -m 0644 config/image.toml /image/etc/keyrelay/keyrelay.toml && \
    install -d -m 0755 /image/etc/keyrelay/conf.d

FROM ${RUN_IMAGE}
COPY --from=build /image/ /

# So that memory which one busy hour took comes back: measured in docs/limits.md.
ENV GLIBC_TUNABLES=glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=131072

# By number, for Kubernetes' runAsNonRoot cannot look up a name. Nothing is written, so the root may be read-only.
USER 65532:65532

# Clients. The operators' listener is on the loopback of the container, for the HEALTHCHECK.
EXPOSE 7400
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/keyrelay", "healthcheck"]

# SIGTERM ends the streams in order, within `drain` (4 s).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/keyrelay"]
CMD ["run", "/etc/keyrelay/keyrelay.toml"]

# Last, for they change with every build.
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="keyrelay" \
      org.opencontainers.image.description="Change a key, see it in every browser: relays KeyDB, Valkey or Redis keys to Server-Sent Events and WebSocket clients." \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
