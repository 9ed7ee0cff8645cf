FROM a:1
ENV a="b c" d='e f' g=h\ i j="k\"l" m='n\o' p=
ENV old form with  several   words
LABEL "key with blank"="value" multi="first \
second" 'x'=y
ENV path="${a:+$d}" q=${r:-"s t"} u="'"
RUN echo "a 'b' \"c\"" 'd "e"' \
  # comment in between
  && echo $'f'
CMD ["a \"b\"", "c\\d", "\u00e9"]
