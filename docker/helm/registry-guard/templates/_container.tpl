{{/* A container of processes.yaml: (dict "root" $ "pod" pod-name "name" container-name "one" container "gpu" bool "more" values-of-the-pod). */}}
{{- define "guard.container" -}}
{{- $one := .one }}{{ $v := .root.Values }}{{ $pod := .pod -}}
name: {{ .name }}
{{- $image := and .gpu "worker-gpu" | default $one.image }}
{{- $own := and (eq $image "torchserve") (eq $v.publisher "open_inference") }}
image: {{ include "guard.image" (list .root (ternary "open-inference" $image $own)) | quote }}
imagePullPolicy: {{ $v.image.pullPolicy }}
securityContext: {{- include "guard.containerSecurity" . | nindent 2 }}
{{- with $one.command }}
command: {{ toJson . }}
{{- end }}
{{- if not (has "none" $one.settings) }}
envFrom: [{configMapRef: {name: {{ include "guard.name" .root }}-settings}}]
env: {{- include "guard.environment" (list .root $one .gpu) | nindent 2 }}
{{- range $v.secretSettings }}
{{- if has $pod .pods }}
  - name: {{ .name }}
    valueFrom: {secretKeyRef: {name: {{ .secret | quote }}, key: {{ .key | quote }}}}
{{- end }}
{{- end }}
{{- end }}
resources:
{{- $resources := deepCopy (index (.more.resources | default dict) .name | default dict) }}
{{- if .gpu }}
{{- $resources = merge (dict "limits" (dict $v.gpu.resource $v.gpu.count)) $resources }}
{{- end }}
{{- toYaml $resources | nindent 2 }}
{{- with $one.port }}
ports: [{name: http, containerPort: {{ . }}}]
{{- end }}
{{- if eq .name "api" }}
startupProbe: {httpGet: {path: /health/live, port: http}, periodSeconds: 3, failureThreshold: 40}
readinessProbe: {httpGet: {path: /health/ready, port: http}, periodSeconds: 10, timeoutSeconds: 5}
livenessProbe: {httpGet: {path: /health/live, port: http}, periodSeconds: 20, timeoutSeconds: 5}
{{- else if $own }}
startupProbe: {httpGet: {path: /v2/health/live, port: http}, periodSeconds: 3, failureThreshold: 40}
readinessProbe: {httpGet: {path: /v2/health/ready, port: http}, periodSeconds: 10, timeoutSeconds: 5}
livenessProbe: {httpGet: {path: /v2/health/live, port: http}, periodSeconds: 20, timeoutSeconds: 5, failureThreshold: 6}
{{- else if $one.port }}
startupProbe: {tcpSocket: {port: http}, periodSeconds: 5, failureThreshold: 60}
readinessProbe: {tcpSocket: {port: http}, periodSeconds: 10}
livenessProbe: {tcpSocket: {port: http}, periodSeconds: 20, failureThreshold: 6}
{{- else }}
startupProbe: {exec: {command: {{ toJson $one.alive }}}, periodSeconds: 10, failureThreshold: 60, timeoutSeconds: 5}
livenessProbe: {exec: {command: {{ toJson $one.alive }}}, periodSeconds: 60, timeoutSeconds: 5}
{{- end }}
volumeMounts:
  - {name: tmp-{{ .name }}, mountPath: /tmp}
  - {name: trust, mountPath: /etc/guard-trust, readOnly: true}
{{- if not (has "none" $one.settings) }}
  - {name: data-{{ .name }}, mountPath: /var/lib/guard}
{{- if $v.site }}
  - {name: site, mountPath: /etc/guard-site, readOnly: true}
{{- end }}
{{- end }}
{{- if and (has "hooks" $one.settings) $v.hooks.existingSecret }}
  - {name: hooks, mountPath: /run/guard-hooks, readOnly: true}
{{- end }}
{{- if $one.signs }}
  - {name: keys, mountPath: /run/guard-keys}
  - {name: checkpoints, mountPath: /run/guard-keys/checkpoints}
{{- end }}
{{- if eq .pod "serving" }}
  - {name: torchserve, mountPath: /run/guard-ts}
{{- end }}
{{- end }}
