import idna

print(idna.encode("größe.example"))
