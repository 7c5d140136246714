package supervisor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"devenv/node/provisioner"
)

const (
	coreDNSUser     = "system:coredns"
	controllersUser = "system:devenv-controllers"
)

type m = map[string]any

// object is one thing that every cluster has, and the path of the collection that it is in.
type object struct {
	collection string
	body       m
}

func (o object) name() string { return o.body["metadata"].(m)["name"].(string) }

// objects are what makes a bare API server a cluster that applications expect.
func objects(s Settings) []object {
	rbac := "/apis/rbac.authorization.k8s.io/v1"
	role := "rbac.authorization.k8s.io"
	bind := func(name, role_, user string) object {
		return object{rbac + "/clusterrolebindings", m{
			"apiVersion": role + "/v1", "kind": "ClusterRoleBinding", "metadata": m{"name": name},
			"roleRef":  m{"apiGroup": role, "kind": "ClusterRole", "name": role_},
			"subjects": []m{{"apiGroup": role, "kind": "User", "name": user}},
		}}
	}
	dns := m{"name": "kube-dns", "namespace": "kube-system", "labels": m{
		"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/service-name": "kube-dns",
	}}
	port := func(name, protocol string) m { return m{"name": name, "port": 53, "protocol": protocol} }
	return []object{
		{"/apis/storage.k8s.io/v1/storageclasses", m{
			"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
			"metadata":    m{"name": "standard", "annotations": m{"storageclass.kubernetes.io/is-default-class": "true"}},
			"provisioner": provisioner.Name, "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
			"allowVolumeExpansion": false,
		}},
		bind("devenv:kubelet-api", "system:kubelet-api-admin", "kube-apiserver-kubelet-client"),
		bind("devenv:provisioner", "system:persistent-volume-provisioner", controllersUser),
		{rbac + "/clusterroles", m{
			"apiVersion": role + "/v1", "kind": "ClusterRole", "metadata": m{"name": "devenv:controllers"},
			"rules": []m{
				{"apiGroups": []string{""}, "resources": []string{"services", "pods", "namespaces"}, "verbs": []string{"list", "watch"}},
				{"apiGroups": []string{""}, "resources": []string{"services/status"}, "verbs": []string{"update"}},
				{"apiGroups": []string{"networking.k8s.io"}, "resources": []string{"networkpolicies"}, "verbs": []string{"list", "watch"}},
			},
		}},
		bind("devenv:controllers", "devenv:controllers", controllersUser),
		{rbac + "/clusterroles", m{
			"apiVersion": role + "/v1", "kind": "ClusterRole", "metadata": m{"name": "system:coredns"},
			"rules": []m{
				{"apiGroups": []string{""}, "resources": []string{"services", "pods", "namespaces"}, "verbs": []string{"list", "watch"}},
				{"apiGroups": []string{"discovery.k8s.io"}, "resources": []string{"endpointslices"}, "verbs": []string{"list", "watch"}},
			},
		}},
		bind("devenv:coredns", "system:coredns", coreDNSUser),
		{"/api/v1/namespaces/kube-system/services", m{
			"apiVersion": "v1", "kind": "Service", "metadata": dns,
			"spec": m{
				"clusterIP": s.Network.service(10).String(),
				"ports":     []m{port("dns", "UDP"), port("dns-tcp", "TCP")},
			},
		}},
		{"/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", m{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": dns, "addressType": "IPv4",
			"endpoints": []m{{"addresses": []string{s.Network.Node.String()}, "conditions": m{"ready": true}}},
			"ports":     []m{port("dns", "UDP"), port("dns-tcp", "TCP")},
		}},
	}
}

// apply makes the object as we want it, or leaves it so.
func apply(client *http.Client, server string, o object) error {
	body, err := json.Marshal(o.body)
	if err != nil {
		return err
	}
	url := server + o.collection + "/" + o.name() + "?fieldManager=devenv&force=true"
	request, err := http.NewRequest(http.MethodPatch, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/apply-patch+yaml")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return fmt.Errorf("applying %s: %s", o.name(), text)
	}
	return nil
}
