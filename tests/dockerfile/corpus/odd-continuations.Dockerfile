FROM \
  a:1 \
  AS \
  named
RUN echo one; \
    # two

    echo three; \
  \
    echo four \\
RUN \
	echo five
   USER   six
COPY --from=b:1 \
     --chown=1:2 \
     /a /b \
     /c/
