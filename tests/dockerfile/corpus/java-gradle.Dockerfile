FROM gradle:8.10-jdk21 AS build
WORKDIR /home/gradle/src
COPY --chown=gradle:gradle build.gradle.kts settings.gradle.kts gradle.properties ./
COPY --chown=gradle:gradle gradle gradle
RUN --mount=type=cache,target=/home/gradle/.gradle,uid=1000,gid=1000 gradle dependencies --no-daemon
COPY --chown=gradle:gradle src src
RUN --mount=type=cache,target=/home/gradle/.gradle,uid=1000,gid=1000 gradle bootJar --no-daemon
FROM eclipse-temurin:21-jre-alpine
ENV JAVA_OPTS="-Xms256m -Xmx512m" \
    SPRING_PROFILES_ACTIVE=prod
COPY --from=build /home/gradle/src/build/libs/app.jar /app.jar
ENTRYPOINT exec java $JAVA_OPTS -jar /app.jar
