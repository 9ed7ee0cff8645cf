# check=skip=JSONArgsRecommended;error=true
# escape=`
# syntax=docker/dockerfile:1
FROM a:1
RUN echo a `
    b
RUN echo c\
USER x`
y
