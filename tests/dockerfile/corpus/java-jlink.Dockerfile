FROM eclipse-temurin:21 AS jre
RUN $JAVA_HOME/bin/jlink \
         --add-modules java.base,java.logging \
         --strip-debug \
         --no-man-pages \
         --no-header-files \
         --compress=2 \
         --output /javaruntime
FROM debian:12-slim
ENV JAVA_HOME=/opt/java/openjdk
ENV PATH "${JAVA_HOME}/bin:${PATH}"
COPY --from=jre /javaruntime $JAVA_HOME
COPY app.jar /opt/app/
CMD ["java", "-jar", "/opt/app/app.jar"]
