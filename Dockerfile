# One image for every service: the `fedpipe` binary, the libraries it names, authorities and a user. No shell, nothing to update but itself.
#
#     docker build --tag fedpipe:0.1.0 .
#
# Three layers of work, so that a change of code does not compile dependencies again: manifests → dependencies → build. The commands are
# scripts, which ./run test runs outside of a container.
#
# The base is pinned by its exact tag. Its digest could not be verified where this was written: where you can, write
# `rust:1.95.0-slim-bookworm@sha256:…` here.
FROM rust:1.95.0-slim-bookworm AS toolchain
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
      fedpipe.glibc.minimum="${GLIBC}"
COPY --from=build /image /
USER 65532:65532
ENTRYPOINT ["/usr/bin/fedpipe"]
CMD ["--help"]
