/**
 * The program of the KVM probe: kvm-payload.S, assembled by
 * `as --64 -o p.o kvm-payload.S && ld -Ttext=0xf0000 --oformat binary -o p.bin p.o`.
 * A test assembles it again where binutils are installed and compares.
 */
const code =
  "+vy6+AOwUu4uZg8BFlgDDyDADAEPIsBm6h8ADwAIAGa4EACO2I7AjtC8AAACAGa6+AOwUO6/AAABADHAuQAgAADz" +
  "q8cFAAABAAcQAQDHBQAQAQAHIAEAxwUYEAEABzABAMcFACABAIcAAADHBQggAQCHAAAAxwW4PwEAmwDg/g8g4IPI" +
  "IA8i4LgAAAEADyLYuYAAAMAPMg0BCQAADzAPIMANAAABgA8iwOqwAA8AGABIx8QAAAIAZrr4A7BM7r4QAw8AvwBQ" +
  "AQC5SAAAAPOkxwQlBEABAPD/AQBmxwQlOFABAGcAxwQlOlABAABAAQDGBCU9UAEAicYEJTxQAQAAxgQlPFABAAEP" +
  "ARVQAgAAvwBgAQC5AAQAADHA86u7AwAAALjUAg8A6IIBAAC7BgAAALjZAg8A6HMBAAC7DgAAALjjAg8A6GQBAAC7" +
  "QAAAALj3Ag8A6FUBAAAPAR0JAgAAZrg4AA8A2EUx/8wPC8cEJQAAQAB4VjQSgTwlAABAAHhWNBIPhR4BAABBg/8D" +
  "D4UUAQAAZrr4A7BY7rmBAADAMcC6GAAgAA8wuYIAAMC4/wEPADHSDzC5hAAAwLgAAgAAMdIPMLkCAQDAuACAAQAx" +
  "0g8wDzI9AIABAA+FyAAAADHAD6JmuvgDsE3uaitoAPABAGoCajNo+wEPAEjPDwUPCw8B+GVIxwQlAAAAAAcAAABI" +
  "gzwlAIABAAcPhYgAAABIx8QAAAIAZrr4A7BV7rsAAOD+x4PwAAAA/wEAAMeDIAMAAEAAAADHg+ADAAALAAAARTH2" +
  "x4OAAwAAoIYBAPv0+kWF9nT4Zrr4A7BU7rmAw8kB/8l1/LkgTgAADyDYgzQlCCABACAPATwlAAAgAA8i2IMEJQBw" +
  "IQAB/8l14Wa6+AOwQ+6wIOb0sCHm9PTr/cHjBGaJgwBgAQBmx4MCYAEAGABmx4MEYAEAAI7B6BBmiYMGYAEAw0H/" +
  "x0jPQf/HSIMEJAJIz0H/x8cEJRAgAQCHACAASIPECEjPQf/GuwAA4P7Hg7AAAAAAAAAASM8PH0QAAAAAAAAAAAAA" +
  "//8AAACbzwD//wAAAJPPAP//AAAAm68A//8AAACTzwD//wAAAPPPAP//AAAA+68AAAAAAAAAAAAAAAAAAAAAAEcA" +
  "EAMPAEcAAFABAAAAAAD/DwBgAQAAAAAA";

/** Bytes of the program, which runs at 0xf0000. */
export const kvmPayload: Buffer = Buffer.from(code, "base64");

/** A 64 KiB firmware image of it; the processor starts 16 bytes before the end, in real mode. */
export function kvmFirmware(): Buffer {
  const image = Buffer.alloc(65_536, 0xf4);
  kvmPayload.copy(image, 0);
  // Far jump to f000:0000.
  image.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
  return image;
}
