# The image of `pulse`: one static program without a shell. `scripts/image` builds it with docker. Without docker, it
# builds the program with the local toolchain and uses only the last stage of this file.
# The release workflow names it by its digest.
ARG RUST_IMAGE=rust:1.95-bookworm
FROM $RUST_IMAGE AS chef
RUN cargo install --locked cargo-chef@0.1.78 cargo-auditable@0.7.7
WORKDIR /src

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=plan /src/recipe.json rust-toolchain.toml ./
COPY scripts/static scripts/static
# Without `pulse dev`, whose servers the image does not have.
ENV FEATURES="--no-default-features --features archive,kubernetes,jemalloc"
RUN scripts/static chef cook --package pulse $FEATURES
COPY . .
RUN scripts/static auditable build --package pulse $FEATURES && scripts/image-files target/*-linux-gnu/release/pulse /files

FROM scratch
COPY --from=build /files /
USER 65532:65532
ENTRYPOINT ["/pulse"]
