{{/* The servers' configuration and environment. */}}

{{/* Filled in by the server itself when it starts: `list NAME` or `list NAME default` */}}
{{- define "temporal.fromEnv" -}}
{{ "{{" }} env {{ index . 0 | quote }}{{ with rest . }} | default {{ first . | quote }}{{ end }} | quote {{ "}}" }}
{{- end }}

{{- define "temporal.config" -}}
{{- $connection := include "backend.connection" . | fromYaml }}
{{- $config := ((.Values.temporal).server).config | default dict -}}
# enable-template
log: {stdout: true, level: {{ $config.logLevel | default "info" }}}
persistence:
  defaultStore: default
  visibilityStore: visibility
  numHistoryShards: {{ $config.numHistoryShards | default 4 }}
  datastores:
{{- range $store, $settings := dict "default" (list "TEMPORAL_STORE" "TEMPORAL_STORE_PASSWORD" $config.maxConns 10) "visibility" (list "TEMPORAL_VISIBILITY" "TEMPORAL_VISIBILITY_STORE_PASSWORD" $config.visibilityMaxConns 5) }}
{{- $prefix := index $settings 0 }}
{{- $conns := index $settings 2 | default (index $settings 3) }}
    {{ $store }}:
      sql:
        pluginName: postgres12
        databaseName: {{ include "temporal.fromEnv" (list (printf "%s_DATABASE" $prefix)) }}
        connectAddr: "{{ "{{" }} env "{{ $prefix }}_HOST" {{ "}}" }}:{{ "{{" }} env "{{ $prefix }}_PORT" | default "{{ $connection.defaultPort }}" {{ "}}" }}"
        connectProtocol: tcp
        user: {{ include "temporal.fromEnv" (list (printf "%s_USER" $prefix) $connection.defaultUser) }}
        password: {{ include "temporal.fromEnv" (list (index $settings 1)) }}
        maxConns: {{ $conns }}
        maxIdleConns: {{ $conns }}
        maxConnLifetime: {{ $config.maxConnLifetime | default "1h" }}
        tls:
          enabled: {{ ne $connection.tls "off" }}
          enableHostVerification: {{ eq $connection.tls "verify-full" }}
          {{- if eq $connection.tls "verify-full" }}
          caFile: /etc/postgresql-ca/ca.crt
          {{- end }}
{{- end }}
global:
  membership: {maxJoinDuration: 30s, broadcastAddress: {{ include "temporal.fromEnv" (list "POD_IP") }}}
  metrics: {prometheus: {timerType: histogram, listenAddress: "0.0.0.0:9090"}}
services:
  frontend: {rpc: {grpcPort: 7233, membershipPort: 6933, httpPort: 7243, bindOnIP: "0.0.0.0"}}
  history: {rpc: {grpcPort: 7234, membershipPort: 6934, bindOnIP: "0.0.0.0"}}
  matching: {rpc: {grpcPort: 7235, membershipPort: 6935, bindOnIP: "0.0.0.0"}}
  worker: {rpc: {grpcPort: 7239, membershipPort: 6939, bindOnIP: "0.0.0.0"}}
clusterMetadata:
  enableGlobalNamespace: false
  failoverVersionIncrement: 10
  masterClusterName: active
  currentClusterName: active
  clusterInformation:
    active: {enabled: true, initialFailoverVersion: 1, rpcName: frontend, rpcAddress: "127.0.0.1:7233"}
dcRedirectionPolicy: {policy: noop}
dynamicConfigClient: {filepath: /etc/temporal/dynamic/dynamic_config.yaml, pollInterval: 10s}
{{ end }}

{{/* The variables of the two databases: the same for the four services and the schema Job. */}}
{{- define "temporal.databaseEnv" -}}
{{- $connection := include "backend.connection" . | fromYaml }}
{{- $fields := dict "HOST" $connection.host "PORT" $connection.port "USER" $connection.user }}
{{- range $prefix := list "TEMPORAL_STORE" "TEMPORAL_VISIBILITY" }}
{{- range $field, $source := $fields }}
- {{ merge (dict "name" (printf "%s_%s" $prefix $field)) $source | toJson }}
{{- end }}
{{- end }}
- {name: TEMPORAL_STORE_DATABASE, value: {{ $connection.database | quote }}}
- {name: TEMPORAL_VISIBILITY_DATABASE, value: "{{ $connection.database }}_visibility"}
{{- range $variable := list "TEMPORAL_STORE_PASSWORD" "TEMPORAL_VISIBILITY_STORE_PASSWORD" }}
- {{ merge (dict "name" $variable) $connection.password | toJson }}
{{- end }}
{{- end }}

{{/* additionalEnv may name another way to the databases (a proxy), but no other databases than the schema Job migrates:
`dict` of "database" and the lists by their place under backend.temporal. */}}
{{- define "temporal.sameDatabases" -}}
{{- $names := dict "TEMPORAL_STORE_DATABASE" .database "TEMPORAL_VISIBILITY_DATABASE" (printf "%s_visibility" .database) }}
{{- range $place, $entries := omit . "database" }}
{{- range $entries | default list }}
{{- $wanted := get $names .name }}
{{- if and $wanted (not .valueFrom) (ne (.value | default "") $wanted) }}
{{- fail (printf "backend.temporal.%s.additionalEnv sets %s to %q, and the schema is made in %q: set backend.temporalConfig.postgres.database (the other one is <database>_visibility), or leave the entry out" $place .name (.value | default "") $wanted) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the schema scripts need beside that */}}
{{- define "temporal.schemaEnv" -}}
{{- $connection := include "backend.connection" . | fromYaml }}
{{- $schema := (.Values.temporal).schema | default dict }}
{{- $message := "backend.temporal.schema.requires.%s is empty: the version that the server needs" -}}
- {name: DEFAULT_PORT, value: {{ $connection.defaultPort | quote }}}
- {name: DEFAULT_USER, value: {{ $connection.defaultUser | quote }}}
- {name: TEMPORAL_REQUIRES, value: {{ ($schema.requires).temporal | required (printf $message "temporal") | toString | quote }}}
- {name: VISIBILITY_REQUIRES, value: {{ ($schema.requires).visibility | required (printf $message "visibility") | toString | quote }}}
- {name: WAIT_SECONDS, value: {{ $schema.waitSeconds | default 600 | int | toString | quote }}}
- {name: RELEASE, value: {{ .Release.Name | quote }}}
- {name: NAMESPACE, value: {{ .Release.Namespace | quote }}}
{{ include "backend.tlsEnv" $connection }}
{{- end }}
