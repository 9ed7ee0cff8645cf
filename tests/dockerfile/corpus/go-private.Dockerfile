# syntax=docker/dockerfile:1
FROM golang:1.26 AS build
ENV GOPRIVATE=git.example.com/*
RUN mkdir -p -m 0700 ~/.ssh && ssh-keyscan git.example.com >> ~/.ssh/known_hosts
WORKDIR /src
COPY go.* ./
RUN --mount=type=ssh,required=true --mount=type=secret,id=netrc,target=/root/.netrc,mode=0400 go mod download
COPY . .
RUN --network=none go build -o /bin/tool .
FROM scratch
COPY --from=0 /bin/tool /tool
CMD ["/tool", "--help"]
