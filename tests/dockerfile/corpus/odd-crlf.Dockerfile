# syntax=docker/dockerfile:1
FROM a:1
RUN echo a \
 && echo b
COPY <<E /e
line
E
CMD ["x"]
