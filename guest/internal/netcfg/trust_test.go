package netcfg

import (
	"bytes"
	"crypto/sha1"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// testAuthority is a certificate that the helper of the host has made, whose subject is testSubject.
const testSubject = "vmsan, secrets of vm-00000001"

const testAuthority = `-----BEGIN CERTIFICATE-----
MIIB3TCCAYSgAwIBAgIQJoDlie2b77enPul3jXVm1jAKBggqhkjOPQQDAjAoMSYw
JAYDVQQDEx12bXNhbiwgc2VjcmV0cyBvZiB2bS0wMDAwMDAwMTAeFw0yNjExMjgy
MDE2NTRaFw0zNjExMjkyMDE2NTRaMCgxJjAkBgNVBAMTHXZtc2FuLCBzZWNyZXRz
IG9mIHZtLTAwMDAwMDAxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwCnO9AMy
TXXc/MCRfuzJz+tXvdtbSecq2kBsRS2swaX0KrCg+VPX1FOS9FbVhd1WRG01cG9Z
HgdaZDJq1ReA9aOBjzCBjDAOBgNVHQ8BAf8EBAMCAQYwEgYDVR0TAQH/BAgwBgEB
/wIBADAdBgNVHQ4EFgQUrkllhvAkOB4do88/9qG6+YZof9MwRwYDVR0eBEAwPqAK
MAiCBmEudGVzdKEwMAqHCAAAAAAAAAAAMCKHIAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAMAoGCCqGSM49BAMCA0cAMEQCIB0FqmdLls+Ie3xVt0zgQYHr
25SlrEv4s0OxwQdWrw2bAiBRgfuRC0JUygmp9nU4r8+lMoxZVtYpiKEPkSK5E7tB
8g==
-----END CERTIFICATE-----
`

func putBelow(t *testing.T, root, path, content string) {
	t.Helper()
	full := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

func readBelow(t *testing.T, root, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTrustComesAndGoes(t *testing.T) {
	root := t.TempDir()
	const debian, image = "/etc/ssl/certs/ca-certificates.crt", "/opt/own.pem"
	putBelow(t, root, "/etc/debian_version", "13\n")
	putBelow(t, root, debian, "a root\n")
	putBelow(t, root, image, "another, without an end")
	// Of another password than the usual one, which nobody can tell.
	const jks, foreign = "/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts"
	store := string(javaStore([]byte(testAuthority)))
	putBelow(t, root, jks, store)
	putBelow(t, root, foreign, store[:len(store)-1])
	trust := &Trust{Certificate: testAuthority, Subject: testSubject, Roots: "public", Files: []string{image, "/none"}}
	for range 2 { // a second time changes nothing
		vars, err := trust.apply(root)
		if err != nil {
			t.Fatal(err)
		}
		if joined := strings.Join(vars, "\n"); !strings.Contains(joined, "SSL_CERT_FILE="+debian+"\n") {
			t.Errorf("variables: %s", joined)
		}
		if got := readBelow(t, root, debian); got != "a root\n"+trustBegin+testAuthority+trustEnd {
			t.Errorf("bundle: %s", got)
		}
		if aliases := storeAliases(t, root, jks); aliases != "ca0 "+storeAlias {
			t.Errorf("Java's store: %s", aliases)
		}
		if got := readBelow(t, root, image); !strings.HasPrefix(got, "another, without an end\n"+trustBegin) {
			t.Errorf("the image's bundle: %s", got)
		}
	}
	if fi, err := os.Stat(filepath.Join(root, debian)); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("mode of the bundle: %v %v", fi.Mode(), err)
	}
	if readBelow(t, root, "/usr/local/share/ca-certificates/"+trustName) != testAuthority {
		t.Error("no anchor")
	}
	links, _ := filepath.Glob(filepath.Join(root, "/etc/ssl/certs/????????.0"))
	if len(links) != 1 {
		t.Fatalf("links: %v", links)
	}
	// OpenSSL's own opinion of the name.
	if out, err := exec.Command("openssl", "x509", "-noout", "-subject_hash", "-in", filepath.Join(root, trustDir, trustName)).Output(); err != nil {
		t.Log("no openssl:", err)
	} else if want := strings.TrimSpace(string(out)) + ".0"; filepath.Base(links[0]) != want {
		t.Errorf("link %s, OpenSSL looks for %s", links[0], want)
	}
	// As in a VM of an image that was made of this one: what is in /run is not part of that.
	if err := os.RemoveAll(filepath.Join(root, trustDir)); err != nil {
		t.Fatal(err)
	}
	// update-ca-certificates has been there: bundle and store are made anew, of the anchor too.
	putBelow(t, root, debian, testAuthority+"a root\n")
	entries := store[storeHead:len(store)-sha1.Size] + string(storeEntry("debian:vmsan-secrets.pem", []byte("ours")))
	putBelow(t, root, jks, string(sealStore(2, []byte(entries))))
	if _, err := (&Trust{Files: []string{image}}).apply(root); err != nil {
		t.Fatal(err)
	}
	if aliases := storeAliases(t, root, jks); aliases != "ca0" {
		t.Errorf("left in Java's store: %s", aliases)
	}
	if readBelow(t, root, foreign) != store[:len(store)-1] {
		t.Error("a store that cannot be read was changed")
	}
	if readBelow(t, root, debian) != "a root\n" {
		t.Errorf("left in the bundle: %s", readBelow(t, root, debian))
	}
	_ = filepath.Walk(root, func(path string, _ os.FileInfo, _ error) error {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "BEGIN CERTIFICATE") {
			t.Errorf("left: %s", path)
		}
		return nil
	})
	if links, _ := filepath.Glob(filepath.Join(root, "/etc/ssl/certs/????????.*")); len(links) != 0 {
		t.Errorf("left: %v", links)
	}
}

// storeAliases gives the names in a Java key store, as keytool says where there is one.
func storeAliases(t *testing.T, root, path string) string {
	t.Helper()
	store := []byte(readBelow(t, root, path))
	end := len(store) - sha1.Size
	if !bytes.Equal(storeDigest(store[:end]), store[end:]) {
		t.Fatalf("the digest of %s is wrong", path)
	}
	var names []string
	for rest := store[storeHead:end]; len(rest) > 0; {
		length, alias, ok := measureEntry(rest)
		if !ok {
			t.Fatalf("entries of %s: %v", path, names)
		}
		names = append(names, alias)
		rest = rest[length:]
	}
	if exec.Command("keytool", "-help").Run() != nil {
		return strings.Join(names, " ")
	}
	out, err := exec.Command("keytool", "-list", "-storepass", storePassword, "-keystore", filepath.Join(root, path)).CombinedOutput()
	for _, name := range names {
		if !strings.Contains(string(out), name+",") {
			t.Errorf("keytool does not see %s: %s %v", name, out, err)
		}
	}
	return strings.Join(names, " ")
}

func TestJavaStoresThatAreNoneStay(t *testing.T) {
	whole := javaStore([]byte(testAuthority))
	for n := range whole {
		if _, _, ok := storeWithoutTrust(whole[:n]); ok {
			t.Errorf("%d bytes were taken for a store", n)
		}
	}
	// Well sealed, and yet wrong: a key, a length beyond the end, too few entries.
	entry := storeEntry("a", []byte("b"))
	key := append([]byte{0, 0, 0, 1}, entry[4:]...)
	beyond := append(entry[:len(entry)-5:len(entry)-5], 0xff, 0xff, 0xff, 0xff, 'b')
	for name, store := range map[string][]byte{"key": sealStore(1, key), "beyond": sealStore(1, beyond), "few": sealStore(2, entry), "many": sealStore(0, entry)} {
		if _, _, ok := storeWithoutTrust(store); ok {
			t.Errorf("%s was taken for a store", name)
		}
	}
}

func TestTrustWithoutAnyStore(t *testing.T) {
	root := t.TempDir()
	vars, err := (&Trust{Certificate: testAuthority, Subject: testSubject, Roots: "public"}).apply(root)
	if err != nil {
		t.Fatal(err)
	}
	if joined := strings.Join(vars, "\n"); !strings.Contains(joined, "CURL_CA_BUNDLE=/run/vmsan/bundle.pem\n") {
		t.Errorf("variables: %s", joined)
	}
	if got := readBelow(t, root, "/run/vmsan/bundle.pem"); got != "public\n"+testAuthority {
		t.Errorf("bundle: %s", got)
	}
	if entries, _ := os.ReadDir(root); len(entries) != 1 {
		t.Errorf("made elsewhere: %v", entries)
	}
	out, err := exec.Command("keytool", "-list", "-storepass", storePassword, "-keystore", filepath.Join(root, trustDir, "cacerts.jks")).CombinedOutput()
	if err != nil && out == nil {
		t.Skip("no keytool")
	}
	if !strings.Contains(string(out), "ca0") {
		t.Errorf("keytool: %s %v", out, err)
	}
}

func TestTrustLeavesGuestsWithoutSecretsAlone(t *testing.T) {
	root := t.TempDir()
	putBelow(t, root, "/etc/debian_version", "13\n")
	putBelow(t, root, "/etc/ssl/certs/ca-certificates.crt", "a root\n")
	if vars, err := (&Trust{}).apply(root); vars != nil || err != nil {
		t.Errorf("%v %v", vars, err)
	}
	if entries, _ := os.ReadDir(root); len(entries) != 1 {
		t.Errorf("made: %v", entries)
	}
}
