package supervisor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"time"
)

const (
	authorityYears = 10
	leafDays       = 365
	renewBefore    = 30 * 24 * time.Hour
)

// authority signs certificates; its key stays in the state directory.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// leaf describes one certificate: who it is for, and what it may be used for.
type leaf struct {
	file   string
	signer string
	name   string
	groups []string
	hosts  []string // a server's names and addresses; none for a pure client
}

// leaves are all certificates but the authorities'.
func leaves(s Settings) []leaf {
	node := s.Network.Node.String()
	own := []string{"localhost", "127.0.0.1"}
	api := append([]string{
		node, s.Network.service(1).String(), s.Node(),
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}, own...)
	return []leaf{
		{"apiserver", "ca", "kube-apiserver", nil, api},
		{"apiserver-kubelet-client", "ca", "kube-apiserver-kubelet-client", nil, nil},
		{"front-proxy-client", "front-proxy-ca", "front-proxy-client", nil, nil},
		{"etcd", "etcd-ca", "etcd", nil, own},
		{"apiserver-etcd-client", "etcd-ca", "kube-apiserver", nil, nil},
		{"kubelet-server", "ca", "system:node:" + s.Node(), nil, append([]string{node, s.Node()}, own...)},
		{"kubelet", "ca", "system:node:" + s.Node(), []string{"system:nodes"}, nil},
		{"admin", "ca", "devenv-admin", []string{"system:masters"}, nil},
		{"kube-controller-manager", "ca", "system:kube-controller-manager", nil, nil},
		{"kube-scheduler", "ca", "system:kube-scheduler", nil, nil},
		{"kube-proxy", "ca", "system:kube-proxy", nil, nil},
		{"coredns", "ca", coreDNSUser, nil, nil},
		{"controllers", "ca", controllersUser, nil, nil},
		{"simulate", "ca", simulatedUser, nil, nil},
	}
}

// ensureCertificates makes what is missing, near its end, or made for other addresses; it tells what it made anew.
func ensureCertificates(s Settings, now time.Time) ([]string, error) {
	if err := os.MkdirAll(s.pki(), 0o700); err != nil {
		return nil, err
	}
	var made []string
	authorities := map[string]authority{}
	for _, name := range []string{"ca", "front-proxy-ca", "etcd-ca"} {
		ca, err := loadPair(s.pki(name))
		if err != nil || now.Add(renewBefore).After(ca.cert.NotAfter) {
			if ca, err = makeAuthority(s.pki(name), "devenv-"+s.Name+"-"+name, now); err != nil {
				return made, err
			}
			made = append(made, name)
		}
		authorities[name] = ca
	}
	for _, want := range leaves(s) {
		signer := authorities[want.signer]
		have, err := loadPair(s.pki(want.file))
		if err == nil && fits(have.cert, want, signer.cert, now) {
			continue
		}
		if err := makeLeaf(s.pki(want.file), want, signer, now); err != nil {
			return made, err
		}
		made = append(made, want.file)
	}
	if _, err := os.Stat(s.pki("service-accounts.key")); err != nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return made, err
		}
		if err := writeKey(s.pki("service-accounts.key"), key); err != nil {
			return made, err
		}
		made = append(made, "service-accounts")
	}
	return made, nil
}

func fits(have *x509.Certificate, want leaf, signer *x509.Certificate, now time.Time) bool {
	hosts := slices.Clone(have.DNSNames)
	for _, address := range have.IPAddresses {
		hosts = append(hosts, address.String())
	}
	return now.After(have.NotBefore) && now.Add(renewBefore).Before(have.NotAfter) &&
		have.CheckSignatureFrom(signer) == nil &&
		have.Subject.CommonName == want.name && sameSet(have.Subject.Organization, want.groups) && sameSet(hosts, want.hosts)
}

func sameSet(one, other []string) bool {
	one, other = slices.Sorted(slices.Values(one)), slices.Sorted(slices.Values(other))
	return slices.Equal(one, other)
}

func makeAuthority(path, name string, now time.Time) (authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotAfter:              now.AddDate(authorityYears, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	return sign(path, template, authority{}, now)
}

func makeLeaf(path string, want leaf, signer authority, now time.Time) error {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: want.name, Organization: want.groups},
		NotAfter:    now.AddDate(0, 0, leafDays),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, host := range want.hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if len(want.hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	_, err := sign(path, template, signer, now)
	return err
}

// sign makes a key and its certificate and writes both; without a signer the certificate signs itself.
func sign(path string, template *x509.Certificate, signer authority, now time.Time) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return authority{}, err
	}
	template.SerialNumber = serial
	template.NotBefore = now.Add(-time.Hour)
	if signer.cert == nil {
		signer = authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, &key.PublicKey, signer.key)
	if err != nil {
		return authority{}, fmt.Errorf("signing %s: %w", path, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, err
	}
	if err := writeKey(path+".key", key); err != nil {
		return authority{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return authority{cert, key}, writeFile(path+".crt", text, 0o644)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// loadPair reads `path`.crt and `path`.key; a pair that does not belong together is as good as none.
func loadPair(path string) (authority, error) {
	crt, err := os.ReadFile(path + ".crt")
	if err != nil {
		return authority{}, err
	}
	pair, err := os.ReadFile(path + ".key")
	if err != nil {
		return authority{}, err
	}
	certBlock, _ := pem.Decode(crt)
	keyBlock, _ := pem.Decode(pair)
	if certBlock == nil || keyBlock == nil {
		return authority{}, errors.New(path + ": no PEM")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return authority{}, err
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return authority{}, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return authority{}, errors.New(path + ": the key belongs to another certificate")
	}
	return authority{cert, key}, nil
}
