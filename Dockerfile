# The images: targets `operator` (the last, so the default) and `emulator`. `make image` builds both.
#
#   SOURCE=build      compiles in a Rust image; one build machine serves both architectures
#   SOURCE=prebuilt   packs dist/<architecture>/, which release/binaries has filled; no base image is pulled
ARG SOURCE=build

FROM --platform=$BUILDPLATFORM rust:1.95.0-bookworm AS build
WORKDIR /source
COPY . .
ARG TARGETARCH
RUN release/binaries "$TARGETARCH"

FROM scratch AS prebuilt
COPY dist /source/dist

FROM ${SOURCE} AS binaries

FROM scratch AS emulator
ARG TARGETARCH
ARG VERSION
ARG REVISION
ARG REPOSITORY
LABEL org.opencontainers.image.title="boltz-emulator" \
    org.opencontainers.image.description="A stateful emulator of the Boltz admin API, with faults on demand" \
    org.opencontainers.image.source="$REPOSITORY" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
COPY --from=binaries /source/dist/${TARGETARCH}/boltz-emulator /boltz-emulator
ENV BOLTZ_EMULATOR_LISTEN=:8099
EXPOSE 8099
USER 65532:65532
ENTRYPOINT ["/boltz-emulator"]

FROM scratch AS operator
ARG TARGETARCH
ARG VERSION
ARG REVISION
ARG REPOSITORY
LABEL org.opencontainers.image.title="boltz-operator" \
    org.opencontainers.image.description="Kubernetes operator that creates, stores, rotates and revokes API keys of the Boltz API" \
    org.opencontainers.image.source="$REPOSITORY" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
COPY --from=binaries /source/dist/${TARGETARCH}/boltz-operator /boltz-operator
EXPOSE 8080
USER 65532:65532
ENTRYPOINT ["/boltz-operator"]
