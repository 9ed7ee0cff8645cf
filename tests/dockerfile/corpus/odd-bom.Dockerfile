# escape=\
FROM a:1
RUN true
