FROM golang:1.26 AS api
WORKDIR /src
COPY api/ .
RUN go build -o /api .
FROM node:22 AS web
WORKDIR /web
COPY web/package.json web/package-lock.json ./
RUN npm ci
COPY web/ .
RUN npm run build
FROM debian:12 AS files
RUN mkdir -p /out/data && date -u -d @0 > /out/data/when
FROM scratch
COPY --from=api /api /api
COPY --from=web /web/dist /www
COPY --from=files /out/data /data
ENTRYPOINT ["/api"]
