FROM mcr.microsoft.com/dotnet/sdk:9.0 AS build
WORKDIR /source
COPY *.sln .
COPY src/App/*.csproj ./src/App/
RUN dotnet restore
COPY src/. ./src/
WORKDIR /source/src/App
RUN dotnet publish -c release -o /app --no-restore
FROM mcr.microsoft.com/dotnet/aspnet:9.0
WORKDIR /app
COPY --from=build /app ./
ENTRYPOINT ["dotnet", "App.dll"]
