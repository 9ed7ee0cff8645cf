# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022
SHELL ["powershell", "-command"]
RUN New-Item -ItemType Directory C:\Example ; `
    Set-Content -Path C:\Example\a.txt -Value 'a'
COPY app\ C:\app\
WORKDIR C:\app
CMD ["C:\\app\\app.exe"]
