FROM alpine:3.22 AS fetch
ARG VERSION=1.2.3 TARGETARCH
ADD https://example.com/tool-${VERSION#v}-${TARGETARCH:-amd64}.tar.gz /tmp/tool.tgz
RUN tar -xzf /tmp/tool.tgz -C /usr/local/bin
FROM alpine:3.22
COPY --from=fetch /usr/local/bin/tool /usr/local/bin/
CMD tool
