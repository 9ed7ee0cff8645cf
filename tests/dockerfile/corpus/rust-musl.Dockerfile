FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && cargo build --release && rm -r src
COPY src src
RUN touch src/main.rs && cargo build --release --locked
FROM scratch
COPY --from=build /src/target/release/app /
ENTRYPOINT ["/app"]
