# One image for every service: the `fedpipe` binary, the libraries it names, authorities and a user. No shell, nothing to update but itself.
#
#     docker build --tag fedpipe:0.1.0 .
#
# Three layers of work, so that a change of code does not compile dependencies again: manifests → dependencies → build. The commands are
# scripts, which ./run test runs outside of a container.
#
# The base is pinned by tag and digest, the index of all platforms. The digest is the one that public builds pin for this tag; nothing could be
# pulled where this was written. `docker buildx imagetools inspect rust:1.95.0-slim-bookworm` prints what the registry has.
FROM rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS toolchain
WORKDIR /src

# Only what says which dependencies there are; this stage runs with every change, and what it gives changes seldom.
FROM toolchain AS manifests
COPY . .
RUN scripts/image/manifests.sh /src /skeleton

FROM toolchain AS dependencies
COPY --from=manifests /skeleton ./
RUN cargo build --release --locked --package fedpipe

FROM dependencies AS build
# The newest glibc symbols that the binary may ask for: it runs on Debian 12, Ubuntu 22.04, RHEL 9 and later. The build fails beyond it.
ARG GLIBC=2.34
COPY . .
RUN scripts/image/build.sh "$GLIBC" /image

FROM scratch
ARG GLIBC=2.34
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fedpipe" \
      org.opencontainers.image.description="Fine-tunes one language model on data that stays where it lies" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/rust:1.95.0-slim-bookworm" \
      org.opencontainers.image.base.digest="sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082" \
      fedpipe.glibc.minimum="${GLIBC}"
COPY --from=build /image /
# Stacks of ended threads go back to the system: a worker counts all that is held against its limit.
ENV GLIBC_TUNABLES=glibc.pthread.stack_cache_size=0
USER 65532:65532
ENTRYPOINT ["/usr/bin/fedpipe"]
CMD ["--help"]
