package balancer

import (
	"net/netip"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func service(name string, kind core.ServiceType, age time.Duration, address string) *core.Service {
	s := &core.Service{Spec: core.ServiceSpec{Type: kind}}
	s.Name, s.CreationTimestamp = name, meta.NewTime(time.Unix(1e9, 0).Add(-age))
	if address != "" {
		s.Status.LoadBalancer.Ingress = []core.LoadBalancerIngress{{IP: address}}
	}
	return s
}

func TestWhoGetsWhichAddress(t *testing.T) {
	block := netip.MustParsePrefix("10.214.0.0/30") // .1 and .2 can be given
	balancer, inner := core.ServiceTypeLoadBalancer, core.ServiceTypeClusterIP
	asking := service("asking", balancer, 0, "")
	asking.Spec.LoadBalancerIP = "10.214.0.2"
	class := "another.example/class"
	foreign := service("foreign", balancer, 0, "")
	foreign.Spec.LoadBalancerClass = &class
	for name, row := range map[string]struct {
		services []*core.Service
		want     map[string]string
	}{
		"the oldest comes first":         {[]*core.Service{service("young", balancer, 1, ""), service("old", balancer, 9, "")}, map[string]string{"old": "10.214.0.1", "young": "10.214.0.2"}},
		"who has one keeps it":           {[]*core.Service{service("new", balancer, 9, ""), service("kept", balancer, 1, "10.214.0.1")}, map[string]string{"new": "10.214.0.2"}},
		"one of another block is lost":   {[]*core.Service{service("moved", balancer, 1, "10.99.0.1")}, map[string]string{"moved": "10.214.0.1"}},
		"who is none any more has none":  {[]*core.Service{service("was", inner, 1, "10.214.0.1"), service("never", inner, 1, "")}, map[string]string{"was": "invalid IP"}},
		"who asks gets what is free":     {[]*core.Service{asking}, map[string]string{"asking": "10.214.0.2"}},
		"another's class is left alone":  {[]*core.Service{foreign}, map[string]string{}},
		"the last ones get none":         {[]*core.Service{service("a", balancer, 3, ""), service("b", balancer, 2, ""), service("c", balancer, 1, "")}, map[string]string{"a": "10.214.0.1", "b": "10.214.0.2", "c": "invalid IP"}},
		"two with the same one are told": {[]*core.Service{service("a", balancer, 3, "10.214.0.1"), service("b", balancer, 2, "10.214.0.1")}, map[string]string{"b": "10.214.0.2"}},
	} {
		got := map[string]string{}
		for s, address := range plan(row.services, block) {
			got[s.Name] = address.String()
		}
		if len(got) != len(row.want) {
			t.Errorf("%s: %v, not %v", name, got, row.want)
		}
		for service, address := range row.want {
			if got[service] != address {
				t.Errorf("%s: %v, not %v", name, got, row.want)
			}
		}
	}
}
