FROM a:1
ONBUILD ARG V
ONBUILD COPY --chown=1:1 . /app
ONBUILD RUN --mount=type=cache,target=/c make \
  all
ONBUILD RUN <<E
a
E
ONBUILD HEALTHCHECK --interval=1s CMD ["x"]
