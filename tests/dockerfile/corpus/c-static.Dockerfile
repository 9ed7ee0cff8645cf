FROM alpine:3.22 AS build
RUN apk add --no-cache build-base
COPY hello.c .
RUN cc -static -Os -o /hello hello.c && strip /hello
FROM scratch
COPY --from=build /hello /hello
CMD ["/hello"]
