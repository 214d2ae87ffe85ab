package netcfg

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"strings"
	"unicode/utf16"
)

const (
	// storePassword protects nothing: it is the one that every Java knows.
	storePassword = "changeit"
	// storeAlias is the name of the VM's own authority in an image's store.
	storeAlias = "vmsan-secrets"
	// storeHead is what stands in front of the entries, in bytes.
	storeHead = 12
)

// javaStores are where distributions keep the authorities of all their Javas, for programs that are
// started without the variables: Debian and its kin, Alpine, Fedora and its kin.
var javaStores = []string{"/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts"}

// javaStore gives a Java key store (JKS) that trusts the certificates of a bundle.
func javaStore(bundle []byte) []byte {
	var entries []byte
	count := 0
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			entries = append(entries, storeEntry(fmt.Sprintf("ca%d", count), block.Bytes)...)
			count++
		}
	}
	return sealStore(count, entries)
}

// storeEntry is a certificate that is trusted.
func storeEntry(alias string, der []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 2)
	b = appendText(b, alias)
	b = append(b, make([]byte, 8)...) // made in 1970
	b = appendText(b, "X.509")
	b = binary.BigEndian.AppendUint32(b, uint32(len(der)))
	return append(b, der...)
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// sealStore puts a head in front of entries, and the digest of all behind.
func sealStore(count int, entries []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0xfeedfeed)
	b = binary.BigEndian.AppendUint32(b, 2)
	b = binary.BigEndian.AppendUint32(b, uint32(count))
	b = append(b, entries...)
	return append(b, storeDigest(b)...)
}

func storeDigest(b []byte) []byte {
	sum := sha1.New()
	for _, unit := range utf16.Encode([]rune(storePassword)) {
		sum.Write(binary.BigEndian.AppendUint16(nil, unit))
	}
	sum.Write([]byte("Mighty Aphrodite"))
	sum.Write(b)
	return sum.Sum(nil)
}

// addToJavaStore puts certificate, PEM, into a store of the image in place of the one that is there from us.
// One that is no JKS, has another password, or holds more than authorities stays as it is.
func addToJavaStore(path, certificate string) error {
	_, err := changeStore(path, func(old []byte) []byte {
		count, entries, ok := storeWithoutTrust(old)
		if !ok {
			return old
		}
		if block, _ := pem.Decode([]byte(certificate)); block != nil {
			entries = append(entries, storeEntry(storeAlias, block.Bytes)...)
			count++
		}
		return sealStore(count, entries)
	})
	return err
}

// storeWithoutTrust gives the entries of a store without ours, and how many they are; ok is false for a file that
// cannot be changed.
func storeWithoutTrust(store []byte) (count int, entries []byte, ok bool) {
	end := len(store) - sha1.Size
	if end < storeHead || binary.BigEndian.Uint64(store) != 0xfeedfeed_00000002 || !bytes.Equal(storeDigest(store[:end]), store[end:]) {
		return 0, nil, false
	}
	rest := store[storeHead:end]
	for range binary.BigEndian.Uint32(store[8:]) {
		length, alias, ok := measureEntry(rest)
		if !ok {
			return 0, nil, false
		}
		// Debian's own tool calls it debian:vmsan-secrets.pem.
		if !strings.Contains(alias, storeAlias) {
			entries = append(entries, rest[:length]...)
			count++
		}
		rest = rest[length:]
	}
	return count, entries, len(rest) == 0
}

// measureEntry gives the length and the name of the trusted certificate that b begins with.
func measureEntry(b []byte) (length int, alias string, ok bool) {
	whole, at := len(b), 0
	take := func(n int) []byte {
		if n > whole-at {
			at = whole + 1
			return make([]byte, 4)
		}
		at += n
		return b[at-n : at]
	}
	text := func() string { return string(take(int(binary.BigEndian.Uint16(take(2))))) }
	kind := binary.BigEndian.Uint32(take(4))
	alias = text()
	take(8)
	text()
	take(int(binary.BigEndian.Uint32(take(4))))
	return at, alias, kind == 2 && at <= whole
}
