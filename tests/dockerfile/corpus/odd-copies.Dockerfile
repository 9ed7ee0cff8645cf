FROM a:1 AS build
FROM b:1
COPY --from=0 --link --chmod=u=rwX,go=rX /out/ /
COPY --exclude=*.md --exclude=docs/** --parents ./a/*/b ./c /d/
COPY *.[ch] file?.txt [[]x] /e/
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/a.tar.xz /
ADD --keep-git-dir=true https://github.com/example/x.git#v1:sub /x
ADD --unpack=false local.tar /local.tar
COPY --chown=$U:$G "a" 'b' /f
