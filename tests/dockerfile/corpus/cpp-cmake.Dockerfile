FROM debian:12 AS build
ARG BUILD_TYPE=Release
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN <<INSTALL
set -eux
apt-get update
apt-get install -y --no-install-recommends cmake g++ ninja-build
rm -rf /var/lib/apt/lists/*
INSTALL
WORKDIR /src
COPY CMakeLists.txt ./
COPY --parents src/**/*.cpp include/**/*.h ./
RUN cmake -G Ninja -DCMAKE_BUILD_TYPE=${BUILD_TYPE} -B /build && cmake --build /build
FROM gcr.io/distroless/cc-debian12
COPY --from=build /build/app /usr/bin/app
ENTRYPOINT ["/usr/bin/app"]
