FROM debian:12-slim
ARG DEBIAN_FRONTEND=noninteractive
RUN set -eux; \
    apt-get update; \
    apt-get install -y --no-install-recommends \
        ca-certificates \
        curl \
    ; \
    rm -rf /var/lib/apt/lists/*; \
    case "$(uname -m)" in \
        x86_64) arch=amd64 ;; \
        *) echo >&2 "unsupported"; exit 1 ;; \
    esac; \
    echo "$arch"
ENTRYPOINT ["curl"]
